"""Load repositories of the models in a process that cannot import the package: `load_remote_code.py INPUTS FOLDER ...`.

Writes `scores.safetensors` into each folder, and `again/`: what the loaded objects save, loaded once more.
"""

import importlib
import importlib.abc
import sys
from pathlib import Path


class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == "vl_alignment":
            raise ModuleNotFoundError(f"{fullname} is blocked")
        return None


def inputs_of(model, processor, given):
    """The inputs that a processor makes of two texts and of features or pictures, or of texts alone and noise."""
    settings = {"text": ["a dog runs", "two dogs"]}
    if model.config.model_type == "attngan":
        return {**processor(**settings), "noise": given["noise"], "conditioning_noise": given["conditioning_noise"]}
    if model.config.model_type == "m4c":
        settings["ocr_tokens"] = [["STOP", "exit"], ["7up"]]
        settings["ocr_boxes"] = [[[0.1, 0.1, 0.4, 0.2], [0.5, 0.5, 1, 1]], [[0.2, 0.3, 0.9, 0.5]]]
    if model.config.vision_config is None:
        return processor(**settings, region_features=list(given["features"]))
    return processor(**settings, images=[array.numpy() for array in given["pictures"]])


def scores_in(output):
    """The field of a model's output that is compared."""
    return next(output[name] for name in ("logits_per_image", "logits", "images") if name in output)


def scores_of(folder):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel, AutoProcessor

    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    for loaded in (config, model, processor):
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
    inputs = inputs_of(model, processor, load_file(sys.argv[1]))
    with torch.no_grad():
        output = model(**inputs)
    if model.config.model_type == "attngan":  # the processor beside the weights reads what is given as strings
        read = model.generate("a dog runs", seed=0).input_ids
        assert torch.equal(read, processor(text=["a dog runs"])["input_ids"])
    return scores_in(output), model, processor


def main():
    sys.meta_path.insert(0, Blocked())
    try:
        importlib.import_module("vl_alignment")
    except ModuleNotFoundError:
        pass
    else:
        raise AssertionError("the package can be imported here: the test would show nothing")

    import torch
    from safetensors.torch import save_file

    for folder in map(Path, sys.argv[2:]):
        scores, model, processor = scores_of(folder)
        model.save_pretrained(folder / "again")
        processor.save_pretrained(folder / "again")
        assert torch.equal(scores_of(folder / "again")[0], scores)
        save_file({"scores": scores.contiguous()}, folder / "scores.safetensors")
        weights = folder / "again" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
        try:
            scores_of(folder / "again")
        except ValueError as error:
            assert type(error).__name__ == "CheckpointError", error
        else:
            raise AssertionError("a truncated file was loaded")
    assert not any(name.partition(".")[0] == "vl_alignment" for name in sys.modules)


if __name__ == "__main__":
    main()
