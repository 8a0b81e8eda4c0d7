"""The built-in procedural world: scenes of simple solids with pictures, boxes, masks, relations, captions, questions.

It needs no download. Scene, picture and language are separate: `scene` places objects, `rendering` draws them,
`captions` talks about them and `questions` asks about them, `builder` and `question_builder` make the data sets, and
`export` writes them ready for the Hub. `programs` answers questions about CLEVR's scenes just as well.
With printed words it is a world to read in: `text_scene`, `text_rendering`, `text_questions` and `text_builder`.
"""

from vl_alignment.data.blocks.builder import CONTENT_VERSION, BlocksBuilder, BlocksConfig, load_blocks
from vl_alignment.data.blocks.captions import Caption, Mention, caption_holds, make_captions, make_descriptions
from vl_alignment.data.blocks.clevr_export import export_clevr
from vl_alignment.data.blocks.export import export_blocks
from vl_alignment.data.blocks.grid_labels import cell_attributes
from vl_alignment.data.blocks.programs import (
    QUESTION_TYPES,
    execute_program,
    program_depth,
    program_hops,
    question_type,
)
from vl_alignment.data.blocks.question_builder import (
    QUESTION_VERSION,
    BlocksQuestionsBuilder,
    BlocksQuestionsConfig,
    load_blocks_questions,
)
from vl_alignment.data.blocks.question_templates import parse_templates, question_templates, read_templates
from vl_alignment.data.blocks.questions import QUESTION_MIX, Question, make_questions
from vl_alignment.data.blocks.rendering import render_scene
from vl_alignment.data.blocks.scene import COLORS, MATERIALS, RELATIONS, SHAPES, SIZES, Scene, SceneObject, make_scene
from vl_alignment.data.blocks.scene_graph import SceneGraph, compute_relations, scene_graph
from vl_alignment.data.blocks.text_builder import TEXT_VERSION, load_blocks_text
from vl_alignment.data.blocks.text_questions import TEXT_QUESTION_MIX, TextQuestion, make_text_questions
from vl_alignment.data.blocks.text_rendering import render_text_scene
from vl_alignment.data.blocks.text_scene import TextScene, make_text_scene

__all__ = [
    "COLORS",
    "CONTENT_VERSION",
    "MATERIALS",
    "QUESTION_MIX",
    "QUESTION_TYPES",
    "QUESTION_VERSION",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "TEXT_QUESTION_MIX",
    "TEXT_VERSION",
    "BlocksBuilder",
    "BlocksConfig",
    "BlocksQuestionsBuilder",
    "BlocksQuestionsConfig",
    "Caption",
    "Mention",
    "Question",
    "Scene",
    "SceneGraph",
    "SceneObject",
    "TextQuestion",
    "TextScene",
    "caption_holds",
    "cell_attributes",
    "compute_relations",
    "execute_program",
    "export_blocks",
    "export_clevr",
    "load_blocks",
    "load_blocks_questions",
    "load_blocks_text",
    "make_captions",
    "make_descriptions",
    "make_questions",
    "make_scene",
    "make_text_questions",
    "make_text_scene",
    "parse_templates",
    "program_depth",
    "program_hops",
    "question_templates",
    "question_type",
    "read_templates",
    "render_scene",
    "render_text_scene",
    "scene_graph",
]
