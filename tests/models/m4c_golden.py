"""The published M4C's weights under the names of ours."""

from transformers import BertConfig

from vl_alignment.models.configuration_m4c import SPECIAL_ANSWERS, M4CConfig
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering

# Released variants -> ours. What the release calls kwq transforms the query, and transposes the scores.
RELEASED_FUNCTIONS = {
    "scaled": "scaled_dot",
    "dot": "dot",
    "general_qwk": "general_key",
    "general_kwq": "general_query",
    "biased_general_qwk": "biased_general_key",
    "biased_general_kwq": "biased_general_query",
    "activated_general_qwk": "activated_general_key",
}
# Prefixes of the published names -> ours; of several that fit the longest counts.
PREFIXES = {
    "text_bert.": "model.question_encoder.text_model.",
    "text_bert_out_linear.": "model.question_encoder.projection.",
    **{
        f"{published}_{part}.": f"model.picture_embedding.{ours}.{ours_part}."
        for published, ours in (("obj", "objects"), ("ocr", "ocr_tokens"))
        for part, ours_part in (("feat_layer_norm", "feature_norm"), ("bbox_layer_norm", "box_norm"))
    },
    **{
        f"linear_{published}_{part}_to_mmt_in.": f"model.picture_embedding.{ours}.{ours_part}."
        for published, ours in (("obj", "objects"), ("ocr", "ocr_tokens"))
        for part, ours_part in (("feat", "features"), ("bbox", "boxes"))
    },
    "mmt.prev_pred_embeddings.ans_layer_norm.": "model.previous_embedding.answer_norm.",
    "mmt.prev_pred_embeddings.ocr_layer_norm.": "model.previous_embedding.ocr_norm.",
    "mmt.prev_pred_embeddings.emb_layer_norm.": "model.previous_embedding.position_norm.",
    "mmt.prev_pred_embeddings.position_embeddings.": "model.previous_embedding.positions.",
    "mmt.prev_pred_embeddings.token_type_embeddings.": "model.previous_embedding.types.",
    "mmt.encoder.normal_layers.": "model.transformer.layers.",
    "ocr_ptr_net.": "pointer.",
    "classifier.": "classifier.",
}
# Within a layer of the transformer.
LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.self.W": "attention.alignment",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention.norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "norm",
}
DROPOUTS = ("object_dropout", "ocr_dropout", "hidden_dropout", "attention_dropout")


def our_name(published):
    """`mmt.encoder.normal_layers.0.attention.self.W.weight` -> the name of our parameter."""
    prefix = max((prefix for prefix in PREFIXES if published.startswith(prefix)), key=len)
    rest = published.removeprefix(prefix)
    if prefix == "mmt.encoder.normal_layers.":
        number, _, rest = rest.partition(".")
        layer, _, kind = rest.rpartition(".")
        rest = f"{number}.{LAYER[layer]}.{kind}"
    return PREFIXES[prefix] + rest


def convert_weights(published, parameters):
    """Published tensors by name -> the state of a model with these parameters.

    The published tables have room for 100 decoding steps and 5 types, of which 12 and 2 are used; what a function has
    no parameter for is left out.

    Args:
        published: By name.
        parameters: Those of our model, by name.
    """
    state = {}
    for name, tensor in published.items():
        ours = our_name(name)
        if ours in parameters:
            state[ours] = tensor[: len(parameters[ours])]
        else:
            assert ".attention.self.W." in name or "text_bert_out_linear" in name, name
    return state


def golden_inputs(golden):
    """The published inputs under the names of ours; boxes without their areas."""
    given = {name.removeprefix("input."): tensor for name, tensor in golden.items()}
    return {
        "input_ids": given["question_indices"],
        "attention_mask": given["question_mask"],
        "region_features": given["pad_obj_features"],
        "region_boxes": given["pad_obj_bboxes"][..., :4],
        "region_mask": given["pad_obj_mask"],
        "ocr_boxes": given["pad_ocr_bboxes"][..., :4],
        "ocr_mask": given["pad_ocr_mask"],
        "ocr_word_vectors": given["ocr_fasttext"],
        "ocr_phoc": given["ocr_phoc"],
        "ocr_features": given["pad_ocr_features"],
        "previous_ids": given["train_prev_inds"],
        "labels": given["targets"],
        "label_mask": given["train_loss_mask"],
    }


def golden_config(meta, function, **fields):
    """The configuration of the golden models, nothing dropped out."""
    sizes, text = meta["mmt_config"], meta["text_bert_config"]
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    text_fields = {name: text[name] for name in (*names, "max_position_embeddings")}
    answers = [*SPECIAL_ANSWERS, *(f"word{n}" for n in range(4, sizes["textvqa_vocab_size"]))]
    settings = {
        "text_config": BertConfig(**{**text_fields, **fields.pop("text", {})}),
        "alignment_function": function,
        "feature_size": sizes["obj_feature_size"],
        "ocr_feature_size": 16,
        "pointer_size": sizes["ptr_query_size"],
        "num_decoding_steps": sizes["num_decoding_steps"],
        "id2label": dict(enumerate(answers)),
        **{name: sizes[name] for name in names[:-1]},
        **dict.fromkeys(DROPOUTS, 0.0),
    }
    return M4CConfig(**{**settings, **fields})


def golden_model(config, weights):
    """The model with published weights, every one of its parameters among them."""
    model = M4CForQuestionAnswering(config).eval()
    parameters = dict(model.named_parameters())
    model.load_state_dict(convert_weights(weights, parameters), strict=True)
    return model
