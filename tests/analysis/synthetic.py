METRICS = ("r1", "r5", "r10")


def make_result(function, seed, rsum=300.0, **changes):
    """Make a small results.json: the six recalls are fixed shares of `rsum`."""
    shares = {"sentence_retrieval": (0.12, 0.18, 0.22), "image_retrieval": (0.10, 0.17, 0.21)}
    metrics = {}
    for direction, parts in shares.items():
        recalls = {f"{direction}_{name}": rsum * part for name, part in zip(METRICS, parts, strict=True)}
        metrics |= recalls | {f"{direction}_rsum": sum(recalls.values())}
    result = {
        "schema_version": 1,
        "run_id": f"scan-blocks-{function}-seed{seed}",
        "task": "retrieval",
        "dataset": {
            "name": "blocks",
            "content_hash": "0123456789abcdef",
            "train": 2000,
            "validation": 200,
            "test": 200,
        },
        "model": "scan",
        "alignment_function": function,
        "released_layout": False,
        "seed": seed,
        "metrics": metrics | {"rsum": rsum},
        "training": {
            "steps": 100,
            "epochs": 4,
            "seconds": 61.5,
            "examples_per_second": 130.0,
            "device": "cpu",
            "precision": "no",
        },
        "versions": {"vl_alignment": "0.1.0", "torch": "2.13.0"},
        "commit": "abc1234",
        "command": "vl-alignment compare --dataset blocks",
        "started": "2026-11-22T10:00:00Z",
        "finished": "2026-11-22T10:01:01Z",
    }
    return result | changes


QUESTION_TYPES = ("exist", "query_attribute", "compare_attribute", "count", "compare_integer")


def make_answer_result(function, seed, accuracy=70.0, **changes):
    """Make a small results.json of question answering: the types lie 10, 5, 0, -10 and 2 points from `accuracy`."""
    metrics = {"accuracy": accuracy}
    for name, gap in zip(QUESTION_TYPES, (10, 5, 0, -10, 2), strict=True):
        metrics[f"accuracy_{name}"] = accuracy + gap
    metrics |= {f"accuracy_depth_{depth}": accuracy + 20 - 2 * depth for depth in (2, 4, 10)}
    result = make_result(function, seed) | {
        "run_id": f"mac-blocks-{function}-seed{seed}",
        "task": "question-answering",
        "model": "mac",
        "metrics": metrics,
        "command": "vl-alignment compare --task vqa --dataset blocks",
    }
    return result | changes


def make_read_answer_result(function, seed, accuracy=70.0, **changes):
    """Make a small results.json of question answering by reading: ANLS lies 5 points above, unseen words 20 below."""
    metrics = {"accuracy": accuracy, "anls": accuracy + 5, "copied_words": 60.0}
    metrics |= {"accuracy_unseen": accuracy - 20, "accuracy_unseen_up_to_one_hop": accuracy - 10}
    metrics |= {"accuracy_read_sign": accuracy + 10, "accuracy_color_of_word": accuracy - 5}
    metrics |= {"accuracy_hops_0": accuracy + 1, "accuracy_hops_2": accuracy - 2, "accuracy_up_to_one_hop": accuracy}
    result = make_result(function, seed)
    families = {"color_of_word": 30, "read_sign": 60, "verify_word": 0}
    bounds = {"answer_ceiling": 97.5, "best_accuracy": 95.0}
    result |= {
        "run_id": f"m4c-blocks_text-{function}-seed{seed}",
        "task": "text-question-answering",
        "dataset": {**result["dataset"], "name": "blocks-text", "question_types": families, **bounds},
        "model": "m4c",
        "metrics": metrics,
        "command": "vl-alignment compare --task textvqa",
    }
    return result | changes


def make_drawing_result(function, seed, distance=5.0, **changes):
    """Make a small results.json of pictures from words, whose R-precision falls as the distance rises."""
    metrics = {"feature_distance": distance, "r_precision": 60.0 - distance, "attribute_accuracy": 80.0}
    result = make_result(function, seed) | {
        "run_id": f"attngan-blocks-{function}-seed{seed}",
        "task": "text-to-image",
        "model": "attngan",
        "metrics": metrics,
        "command": "vl-alignment compare --task text-to-image",
    }
    return result | changes
