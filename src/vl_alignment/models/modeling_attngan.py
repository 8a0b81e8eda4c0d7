"""AttnGAN: pictures drawn of captions, refined by attention to their words (Xu et al. 2018), under any function."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from .checked_inputs import check_words, word_mask
from .configuration_attngan import AttnGanConfig
from .discriminators_attngan import StageDiscriminator
from .errors import ConfigurationError, DataError
from .generator_attngan import AttnGanGenerator
from .modeling_base import AlignmentPreTrainedModel
from .processing_attngan import AttnGanProcessor, pictures_of
from .text_encoder_damsm import DamsmTextEncoder

__all__ = [
    "AttnGanDiscriminators",
    "AttnGanForTextToImageGeneration",
    "AttnGanImages",
    "AttnGanJudgements",
    "AttnGanOutput",
    "AttnGanPreTrainedModel",
]

_IMAGES_AT_ONCE = 16  # that `generate` holds the features of


@dataclass
class AttnGanOutput(ModelOutput):
    """Output of AttnGAN for B captions of L words.

    Attributes:
        images: The pictures of the last stage [B, 3, S, S] in [-1, 1].
        stage_images: Those of every stage, the smallest first and `images` last.
        mean, log_variance: Of the distribution of the condition [B, conditioning_size].
        attentions: One [B, H * W, L] for each stage but the first, over the words; on request.
    """

    images: Tensor | None = None
    stage_images: tuple[Tensor, ...] | None = None
    mean: Tensor | None = None
    log_variance: Tensor | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class AttnGanImages(ModelOutput):
    """What `generate` returns for C captions and n pictures of each; those of the first caption come first.

    Attributes:
        images: [C * n, 3, S, S] in [-1, 1], on the CPU; or as many pictures (PIL).
        attentions: One [C * n, H * W, L] for each stage but the first, on the CPU; on request.
        input_ids: The captions as they were read [C, L].
    """

    images: Any = None
    attentions: tuple[Tensor, ...] | None = None
    input_ids: Tensor | None = None


@dataclass
class AttnGanJudgements(ModelOutput):
    """What the discriminators say about pictures, one [B] of logits a stage.

    Attributes:
        unconditional: Of being real.
        conditional: Of being real and of the caption.
    """

    unconditional: tuple[Tensor, ...] | None = None
    conditional: tuple[Tensor, ...] | None = None


class AttnGanPreTrainedModel(AlignmentPreTrainedModel):
    """Base of the AttnGAN models."""

    config_class = AttnGanConfig
    main_input_name = "input_ids"

    def _init_weights(self, module: nn.Module) -> None:
        """The published code's starting values."""
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.orthogonal_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -0.1, 0.1)
        else:
            super()._init_weights(module)
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                init.normal_(module.weight, 1.0, 0.02)


class AttnGanForTextToImageGeneration(AttnGanPreTrainedModel):
    """AttnGAN's generator behind the text encoder that DAMSM has trained, which stays as it is.

        input_ids [B, L] -> text encoder -+-> sentences [B, text] --+
                                          +-> words [B, L, text] ---+-> generator -> pictures of every stage
        noise [B, z], conditioning_noise [B, c] --------------------+

    Args:
        config: An `AttnGanConfig`.

    Attributes:
        processor: What reads captions given as strings; by default the one saved beside the weights, loaded when it is
            first needed.

    Example:
        >>> model = AttnGanForTextToImageGeneration.from_pretrained(folder)  # doctest: +SKIP
        >>> model.generate("a small red bird", num_images=4, seed=0, output_type="pil").images  # doctest: +SKIP
    """

    def __init__(self, config: AttnGanConfig) -> None:
        super().__init__(config)
        self.text_encoder = DamsmTextEncoder(config).requires_grad_(False)
        self.generator = AttnGanGenerator(config)
        self.processor: Any = None
        self.post_init()

    @classmethod
    def from_damsm(cls, damsm: Any, **fields: Any) -> "AttnGanForTextToImageGeneration":
        """A model with fresh weights around the text encoder of a DAMSM.

        Args:
            damsm: A `DamsmModel`.
            fields: Of the configuration, beside those of the text encoder.
        """
        model = cls(cls.config_class.for_damsm(damsm.config, **fields))
        model.text_encoder.load_state_dict(damsm.text_encoder.state_dict())
        return model

    def train(self, mode: bool = True) -> Any:
        """Keep the text encoder as it is; `from_pretrained` makes new parameters and then calls this."""
        super().train(mode)
        self.text_encoder.eval().requires_grad_(False)
        return self

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode captions.

        Args:
            input_ids: [B, L], padded on the right.
            attention_mask: [B, L], true where there is a word; by default where the id is not the padding's.

        Returns:
            Words [B, L, text], zero at padding, sentences [B, text], and the mask [B, L].

        Raises:
            DataError: If a caption has no words, is padded on the left, or has ids beyond the vocabulary, or the mask
                has another shape.
        """
        mask = word_mask(input_ids, attention_mask, self.config.pad_token_id)
        check_words(input_ids, mask, self.config.vocab_size, "caption")
        with torch.no_grad():
            words, sentences = self.text_encoder(input_ids, mask)
        return words, sentences, mask

    def draw(
        self,
        words: Tensor,
        sentences: Tensor,
        mask: Tensor,
        noise: Tensor | None = None,
        conditioning_noise: Tensor | None = None,
        output_attentions: bool = False,
    ) -> AttnGanOutput:
        """Draw pictures of captions that `encode_texts` has read; shapes as in `forward`.

        Raises:
            DataError: If noise has another shape.
        """
        noises = []
        for name, given, size in (
            ("noise", noise, self.config.noise_size),
            ("conditioning_noise", conditioning_noise, self.config.conditioning_size),
        ):
            shape = (len(sentences), size)
            if given is not None and given.shape != shape:
                raise DataError(f"{name} is {tuple(given.shape)}; it must be {shape}")
            drawn = torch.randn(shape, device=sentences.device) if given is None else given
            noises.append(drawn.to(sentences.dtype))
        drawing = self.generator(words, sentences, mask, *noises, output_attentions)
        return AttnGanOutput(
            images=drawing.images[-1],
            stage_images=drawing.images,
            mean=drawing.mean,
            log_variance=drawing.log_variance,
            attentions=drawing.attentions,
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        noise: Tensor | None = None,
        conditioning_noise: Tensor | None = None,
        output_attentions: bool = False,
    ) -> AttnGanOutput:
        """Draw a picture of each caption.

        Args:
            input_ids: [B, L], padded on the right.
            attention_mask: [B, L].
            noise: [B, noise_size], of a standard normal distribution; drawn where not given.
            conditioning_noise: [B, conditioning_size], the same.
            output_attentions: Whether to return the attention of the stages.
        """
        encoded = self.encode_texts(input_ids, attention_mask)
        return self.draw(*encoded, noise, conditioning_noise, output_attentions)

    @torch.no_grad()
    def generate(
        self,
        captions: str | Sequence[str] | Tensor | None = None,
        num_images: int = 1,
        seed: int | None = None,
        output_type: Literal["pt", "pil"] = "pt",
        output_attentions: bool = False,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> AttnGanImages:
        """Draw pictures of captions.

        Picture j of every caption is drawn from the same noise, which follows from the seed and j alone: it depends
        neither on the other captions nor on how many pictures there are, and functions can be compared by it.

        Args:
            captions: One caption or several, or their ids [C, L].
            num_images: Pictures of each caption.
            seed: Of the noise; other noise at each call where None.
            output_type: "pt", or "pil" for pictures (PIL).
            output_attentions: Whether to return the attention of the stages.
            input_ids: The ids, under the name that a processor gives them.
            attention_mask: [C, L], beside ids.

        Returns:
            An `AttnGanImages`.

        Raises:
            DataError: If there are no captions, or as of `encode_texts`.
            ConfigurationError: If captions are strings and there is no processor, or a number or type is wrong.
        """
        if num_images < 1 or output_type not in ("pt", "pil"):
            raise ConfigurationError(
                f"num_images is {num_images}, output_type {output_type!r}; give at least 1, and 'pt' or 'pil'"
            )
        input_ids, attention_mask = self._ids(captions, input_ids, attention_mask)
        was_training = self.training
        self.eval()  # in training the batch would decide over each picture's brightness
        try:
            drawn = self._draw_all(input_ids, attention_mask, num_images, seed, output_attentions)
        finally:
            self.train(was_training)
        images = torch.cat([batch.images for batch in drawn])  # type: ignore[misc]
        attentions = None
        if output_attentions:
            attentions = tuple(torch.cat(maps) for maps in zip(*(batch.attentions for batch in drawn), strict=True))
        return AttnGanImages(
            images=pictures_of(images) if output_type == "pil" else images,
            attentions=attentions,
            input_ids=input_ids.cpu(),
        )

    def _draw_all(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        num_images: int,
        seed: int | None,
        output_attentions: bool,
    ) -> list[AttnGanOutput]:
        """Draw in batches, each brought to the CPU in float32."""
        words, sentences, mask = self.encode_texts(input_ids, attention_mask)
        generator = torch.Generator()  # on the CPU, so that a seed means the same on every device
        generator.seed() if seed is None else generator.manual_seed(seed)
        sizes = (self.config.noise_size, self.config.conditioning_size)
        # One draw a picture: the first pictures do not depend on how many there are.
        noise = torch.stack([torch.randn(sum(sizes), generator=generator) for _ in range(num_images)]).to(self.device)
        drawn = []
        for rows in torch.arange(len(words) * num_images, device=self.device).split(_IMAGES_AT_ONCE):
            captions = rows // num_images
            given, conditioning = noise[rows % num_images].split(sizes, dim=1)
            output = self.draw(
                words[captions], sentences[captions], mask[captions], given, conditioning, output_attentions
            )
            maps = tuple(attention.float().cpu() for attention in output.attentions or ())
            drawn.append(AttnGanOutput(images=output.images.float().cpu(), attentions=maps))  # type: ignore[union-attr]
        return drawn

    def _ids(
        self, captions: Any, input_ids: Tensor | None, attention_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The ids and mask of captions in whichever form they are given, where the model is."""
        if (captions is None) == (input_ids is None):
            raise DataError("give either captions or input_ids")
        if captions is not None and not isinstance(captions, Tensor):
            inputs = self._reader()(text=captions if isinstance(captions, str) else [*captions])
            captions, attention_mask = inputs["input_ids"], inputs["attention_mask"]
        ids = input_ids if captions is None else captions
        return ids.to(self.device), None if attention_mask is None else attention_mask.to(self.device)  # type: ignore[union-attr]

    def _reader(self) -> Any:
        """The processor: the one that was set, or that beside the weights."""
        if self.processor is None:
            place = self.config.name_or_path
            try:
                # Whoever loaded the model's code from its repository trusts the processor's as well.
                trust = type(self).__module__.startswith("transformers_modules.")
                revision = getattr(self.config, "_commit_hash", None) or "main"
                self.processor = AttnGanProcessor.from_pretrained(
                    str(place), trust_remote_code=trust, revision=revision
                )
            except Exception as error:  # what transformers and the Hub client raise has no common base
                raise ConfigurationError(
                    f"no processor beside the weights ({place or 'a model that was not loaded'}) can read captions; "
                    "set model.processor to an AttnGanProcessor, or give input_ids"
                ) from error
        return self.processor


class AttnGanDiscriminators(AttnGanPreTrainedModel):
    """The discriminators of all stages (see `StageDiscriminator`); only training needs them.

    Args:
        config: The `AttnGanConfig` of the generator.
    """

    main_input_name = "stage_images"

    def __init__(self, config: AttnGanConfig) -> None:
        super().__init__(config)
        self.stages = nn.ModuleList(StageDiscriminator(config, size) for size in config.stage_sizes)
        self.post_init()

    def _staged(self, *pictures: Sequence[Tensor]) -> Any:
        """Each stage's discriminator beside its pictures."""
        if any(len(images) != len(self.stages) for images in pictures):
            raise DataError(
                f"pictures of {[len(images) for images in pictures]} stages, there are {len(self.stages)} "
                "discriminators; give one tensor a stage, the smallest pictures first"
            )
        return zip(self.stages, *pictures, strict=True)

    def forward(self, stage_images: Sequence[Tensor], sentences: Tensor) -> AttnGanJudgements:
        """Judge the pictures of every stage, one [B, 3, S, S] each, as those of the sentences [B, text].

        Raises:
            DataError: If the pictures are of other sizes or stages.
        """
        unconditional, conditional = [], []
        for stage, images in self._staged(stage_images):
            features = stage.features(images)
            unconditional.append(stage.unconditional(features))
            conditional.append(stage.conditional(features, sentences))
        return AttnGanJudgements(unconditional=tuple(unconditional), conditional=tuple(conditional))

    def discriminator_losses(
        self, real: Sequence[Tensor], drawn: Sequence[Tensor], sentences: Tensor
    ) -> tuple[Tensor, ...]:
        """The loss of every stage's discriminator, a scalar each; see `StageDiscriminator.discriminator_loss`."""
        return tuple(
            stage.discriminator_loss(real_images, drawn_images, sentences)
            for stage, real_images, drawn_images in self._staged(real, drawn)
        )

    def generator_losses(self, drawn: Sequence[Tensor], sentences: Tensor) -> tuple[Tensor, ...]:
        """What the generator is to lower at every stage, a scalar each; see `StageDiscriminator.generator_loss`."""
        return tuple(stage.generator_loss(images, sentences) for stage, images in self._staged(drawn))
