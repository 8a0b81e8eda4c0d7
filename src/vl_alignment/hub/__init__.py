"""The Hub: names of variants, model cards, pushing, and the conversion of published checkpoints."""
