"""What a card says of a model and of a data set beyond numbers: what attends to what, where the data is from, limits.

Facts of the models and of the data alone: what a run measured comes from its results.
"""

from dataclasses import dataclass

__all__ = ["DATA_FACTS", "MODEL_FACTS", "OTHER_DATA", "DataFacts", "ModelFacts"]


@dataclass(frozen=True)
class ModelFacts:
    """What a card says of a type of model.

    Attributes:
        what: What it does, one sentence that begins with its name.
        paper: Where it was published.
        query, key: What Q and K are.
        use: What becomes of the scores f(Q, K).
        samples: Texts for the snippets: captions, a question, or a prompt.
        limits: One sentence each.
    """

    what: str
    paper: str
    query: str
    key: str
    use: str
    samples: tuple[str, ...]
    limits: tuple[str, ...]


MODEL_FACTS: dict[str, ModelFacts] = {
    "scan": ModelFacts(
        what="SCAN scores how well a caption fits a picture, by what each word finds among the picture's regions.",
        paper="Lee et al.: Stacked Cross Attention for Image-Text Matching, ECCV 2018",
        query="the caption's words",
        key="the picture's regions",
        use="The scores are normalised, and a softmax over the keys weighs the regions that each query attends to; "
        "cosines of queries and what they attended to, pooled, are the score of the pair.",
        samples=("a red cube left of a ball", "two green cones"),
        limits=(
            "A score ranks pictures or captions; it is no probability, and scores of two models do not compare.",
            "Every pair is scored by itself: a search among millions needs a faster model before this one.",
            "Words that training did not show are read as one unknown word.",
        ),
    ),
    "mac": ModelFacts(
        what="MAC answers a question about a picture in several reasoning steps, each of which reads words of the "
        "question and cells of the picture.",
        paper="Hudson and Manning: Compositional Attention Networks for Machine Reasoning, ICLR 2018",
        query="the control state of the reasoning step",
        key="the picture's cells, as they stand to what was read before",
        use="Here f is taken element-wise (`act(scale * phi(Q) * phi(K))`, one number a feature), and a learned linear "
        "layer makes one score a cell of it; a softmax over the cells weighs what the step reads.",
        samples=("How many cubes are left of the red ball?",),
        limits=(
            "It chooses among the answers of its training data and always names one, also for questions that the "
            "picture does not answer.",
            "Words that training did not show are read as one unknown word.",
        ),
    ),
    "m4c": ModelFacts(
        what="M4C answers a question about a picture by reading: word by word, each from its vocabulary or copied "
        "from the words in the picture.",
        paper="Hu et al.: Iterative Answer Prediction with Pointer-Augmented Multimodal Transformers for TextVQA, "
        "CVPR 2020",
        query="every entity (question words, objects, words in the picture, decoding steps)",
        key="the same entities, in each head of each layer",
        use="A softmax over the keys weighs what each entity takes from the others; the text encoder before them keeps "
        "its scaled dot product.",
        samples=("What is written on the red cube?",),
        limits=(
            "It does not read by itself: the words in the picture and their boxes come from OCR, whose mistakes it "
            "copies.",
            "It repeats what is written in a picture, names and numbers of persons among them, and cannot tell whether "
            "that is true.",
        ),
    ),
    "attngan": ModelFacts(
        what="AttnGAN draws a picture of a caption in stages, each of which looks at the words that concern a place.",
        paper="Xu et al.: AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial "
        "Networks, CVPR 2018",
        query="the places of the picture drawn so far",
        key="the caption's words",
        use="A softmax over the words weighs what each place takes from them.",
        samples=("a large red ball on the left of a small blue cube",),
        limits=(
            "Pictures are small, and not photographs of anything; what a caption does not say is invented.",
            "Words that training did not show mean nothing to it, and a caption without any known word is refused.",
        ),
    ),
}


@dataclass(frozen=True)
class DataFacts:
    """What a card says of a data set.

    Attributes:
        what: One sentence, to follow its name.
        hub_id: How metadata names it.
        limits: One sentence each.
        samples: Texts for the snippets, where the model's own do not fit.
    """

    what: str
    hub_id: str
    limits: tuple[str, ...]
    samples: tuple[str, ...] = ()


_RENDERED = (
    "It knows a rendered world of a few shapes, colours and sizes, and English sentences from templates: photographs, "
    "and sentences that people write, are nothing it was trained for.",
)
_PHOTOGRAPHS = ("two dogs run across the grass", "a man rides a bicycle down the street")
_PEOPLE = (
    "Captions of such photographs are known to guess gender, age, origin and relations of people, and to mention them "
    "unevenly (van Miltenburg, 2016, on Flickr30k); the model learns from them, and was not examined for it.",
    "The photographs are of one site, Flickr, and the captions are English.",
)

DATA_FACTS: dict[tuple[str, str], DataFacts] = {
    ("scan", "blocks"): DataFacts(
        "rendered scenes of coloured blocks with five captions each, which the package makes itself",
        "vl-alignment-blocks",
        _RENDERED,
    ),
    ("mac", "blocks"): DataFacts(
        "rendered scenes of coloured blocks with questions that programs over the scenes answer, which the package "
        "makes itself",
        "vl-alignment-blocks",
        _RENDERED,
    ),
    ("attngan", "blocks"): DataFacts(
        "rendered scenes of one to three blocks and their descriptions, which the package makes itself",
        "vl-alignment-blocks",
        _RENDERED,
    ),
    ("m4c", "blocks-text"): DataFacts(
        "rendered scenes of blocks that bear printed words, with questions and ten answers each, which the package "
        "makes itself",
        "vl-alignment-blocks-text",
        _RENDERED,
    ),
    ("scan", "flickr8k"): DataFacts(
        "photographs of Flickr with five captions each that people wrote (Hodosh et al., 2013; Karpathy's splits)",
        "flickr8k",
        _PEOPLE,
        _PHOTOGRAPHS,
    ),
    ("scan", "flickr30k"): DataFacts(
        "photographs of Flickr with five captions each that people wrote (Young et al., 2014; Karpathy's splits)",
        "flickr30k",
        _PEOPLE,
        _PHOTOGRAPHS,
    ),
    ("scan", "coco"): DataFacts(
        "photographs of COCO with five captions each that people wrote (Lin et al., 2014; Karpathy's splits)",
        "coco",
        _PEOPLE,
        _PHOTOGRAPHS,
    ),
    ("attngan", "coco"): DataFacts(
        "photographs of COCO with captions that people wrote (Lin et al., 2014)", "coco", _PEOPLE, _PHOTOGRAPHS[:1]
    ),
    ("mac", "clevr"): DataFacts(
        "rendered scenes with questions that programs answer (Johnson et al., 2017)",
        "clevr",
        ("It knows rendered shapes and questions from templates, and is no use for photographs.",),
    ),
    ("m4c", "textvqa"): DataFacts(
        "photographs of Open Images with questions that need reading, and ten answers of people each (Singh et al., "
        "2019)",
        "textvqa",
        ("Questions and answers are English, and so is most of the writing in the photographs.",),
    ),
    ("m4c", "stvqa"): DataFacts(
        "photographs of several collections with questions that need reading (Biten et al., 2019)",
        "stvqa",
        ("Questions and answers are English, and so is most of the writing in the photographs.",),
    ),
    ("attngan", "cub"): DataFacts(
        "photographs of 200 species of birds with ten descriptions each (Wah et al., 2011; Reed et al., 2016)",
        "cub",
        ("It draws nothing but birds, and its birds are of no species for certain.",),
        ("a small red bird with a short bill",),
    ),
}
"""By the type of model and the name of the data set."""

OTHER_DATA = (
    "This card knows nothing of where the data came from: whoever trained the model should say here who is in it, who "
    "wrote its texts, and whom it may fail.",
)
"""The limits of data that this package does not know."""
