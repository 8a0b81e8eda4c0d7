from vl_alignment.data.vocabulary import build_word_tokenizer


def test_texts_stand_between_marks_unless_words_alone_are_wanted():
    texts = ["A red ball.", "a blue cone"]
    marked, plain = build_word_tokenizer(texts, 1), build_word_tokenizer(texts, 1, marks=False)
    assert marked.convert_ids_to_tokens(marked("a red cone")["input_ids"]) == ["<start>", "a", "red", "cone", "<end>"]
    assert plain.convert_ids_to_tokens(plain("A red cube!")["input_ids"]) == ["a", "red", "<unk>"]
    assert marked.get_vocab() == plain.get_vocab()


def test_words_alone_survive_saving(tmp_path):
    tokenizer = build_word_tokenizer(["a red ball"], 1, marks=False)
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again("a red ball")["input_ids"] == tokenizer("a red ball")["input_ids"]
