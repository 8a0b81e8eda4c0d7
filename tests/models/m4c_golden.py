"""The published M4C's weights under the names of ours."""

from transformers import BertConfig

from vl_alignment.hub.convert_m4c import m4c_name, m4c_tensor, m4c_unused
from vl_alignment.models.configuration_m4c import SPECIAL_ANSWERS, M4CConfig
from vl_alignment.models.modeling_m4c import M4CForQuestionAnswering

DROPOUTS = ("object_dropout", "ocr_dropout", "hidden_dropout", "attention_dropout")


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
    state = {}
    for name, tensor in weights.items():
        if m4c_unused(name, config.alignment_function) is None:
            parameter = model.get_parameter(m4c_name(name))
            state[m4c_name(name)] = m4c_tensor(name, tensor, parameter.shape)
    model.load_state_dict(state, strict=True)
    return model
