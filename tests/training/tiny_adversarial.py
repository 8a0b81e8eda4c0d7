"""An AttnGAN of two stages, 8 and 16 pixels, with pictures of one colour that their captions name."""

import signal

import numpy as np
import torch
from transformers import ResNetConfig

from vl_alignment.data.vocabulary import build_word_tokenizer
from vl_alignment.models.configuration_damsm import DamsmConfig
from vl_alignment.models.modeling_attngan import AttnGanDiscriminators, AttnGanForTextToImageGeneration
from vl_alignment.models.modeling_damsm import DamsmModel
from vl_alignment.models.processing_attngan import AttnGanProcessor
from vl_alignment.training.adversarial_loop import train_adversarial
from vl_alignment.training.adversarial_settings import AdversarialSettings
from vl_alignment.training.objectives import Evaluation
from vl_alignment.training.runs import RunDirectory

SIZE, BATCH = 12, 4
STEPS = SIZE // BATCH  # of an epoch
COLOURS = {"red": (1, -1, -1), "green": (-1, 1, -1), "blue": (-1, -1, 1)}
CAPTIONS = [f"a {colour} picture" for colour in COLOURS]
BACKBONE = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")  # stride 8
STAGES = (8, 16)


class TinyTask:
    task = "text-to-image"
    selection_metric = "closeness"

    def __init__(self, settings, sample_captions=CAPTIONS[:2]):
        self.settings, self.sample_captions = settings, sample_captions
        self.tokenizer = build_word_tokenizer(CAPTIONS, minimum_count=1, marks=False)
        self.processor = AttnGanProcessor(tokenizer=self.tokenizer)
        self.batches = []
        self.before_batch = {}  # number of the batch -> what happens to it then

    def check_model(self, model):
        assert model.config.vocab_size == len(self.tokenizer)

    def train_dataset(self, epoch):
        colours = np.random.default_rng([self.settings.seed, epoch]).integers(len(COLOURS), size=SIZE)
        return list(enumerate(colours.tolist()))

    def collate(self, examples):
        self.batches.append([index for index, _ in examples])
        pixels = torch.tensor([list(COLOURS.values())[colour] for _, colour in examples]).float()[:, :, None, None]
        encoded = self.tokenizer([CAPTIONS[colour] for _, colour in examples], padding=True, return_tensors="pt")
        batch = {
            "ids": [f"picture-{index}" for index, _ in examples],
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "stage_images": tuple(0.8 * pixels.expand(-1, -1, side, side) for side in STAGES),
            "class_ids": torch.tensor([colour for _, colour in examples]),
        }
        action = self.before_batch.get(len(self.batches))
        return (action(batch) or batch) if action else batch

    def evaluate(self, model, split, accelerator, *, final=True):
        drawn = model.generate(input_ids=self.tokenizer(CAPTIONS, return_tensors="pt")["input_ids"], seed=1).images
        wanted = torch.tensor(list(COLOURS.values())).float()
        return Evaluation({"closeness": -float((drawn.mean(dim=(2, 3)) - wanted).abs().mean())})


def tiny_damsm(vocabulary, seed=0):
    torch.manual_seed(seed)
    sizes = {"word_embedding_size": 5, "hidden_size": 8, "vision_config": BACKBONE, "freeze_vision": False}
    return DamsmModel(DamsmConfig(vocab_size=vocabulary, **sizes))


def tiny_models(seed=0, vocabulary=None, **fields):
    """The generator, its discriminators, and the DAMSM, which is the same for every seed."""
    damsm = tiny_damsm(vocabulary or len(build_word_tokenizer(CAPTIONS, minimum_count=1, marks=False)))
    torch.manual_seed(seed)
    sizes = {"image_size": STAGES[-1], "num_stages": 2, "noise_size": 5, "conditioning_size": 4, "generator_size": 4}
    sizes |= {"discriminator_size": 3, "num_residual_blocks": 1, "alignment_function": "general_key", **fields}
    model = AttnGanForTextToImageGeneration.from_damsm(damsm, **sizes)
    return model, AttnGanDiscriminators(model.config), damsm


def tiny_settings(**changes):
    values = {"epochs": 2, "batch_size": BATCH, "learning_rate": 2e-3, "discriminator_learning_rate": 1e-3}
    values |= {"ema_decay": 0.9, "device": "cpu", "log_every_steps": 2, "sample_every_steps": 3}
    return AdversarialSettings(**{**values, "samples_per_caption": 3, **changes})


def train_tiny(folder, settings=None, *, seed=0, before_batch=None, task=None, accelerator=None, **fields):
    """Train in a folder; the run, the networks, the summary and the task."""
    settings = settings or tiny_settings()
    task = task or TinyTask(settings)
    task.before_batch = before_batch or {}
    run = RunDirectory(folder)
    model, discriminators, damsm = tiny_models(seed, **fields)
    summary = train_adversarial(model, discriminators, damsm, task, settings, run, accelerator=accelerator)
    return run, (model, discriminators), summary, task


def interrupt(batch):
    signal.raise_signal(signal.SIGINT)
