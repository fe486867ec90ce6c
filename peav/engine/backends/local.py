"""A model of transformers in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peav.engine.backends.base import Answer, Backend, Request, register_backend
from peav.engine.digests import ModelFiles
from peav.engine.loading import load_pretrained


@register_backend
class TransformersBackend(ModelFiles, Backend):
    """Runs a model of transformers, in batches of alike requests. Code from the repository of a model never runs.

    Sound and frames are handed over as arrays, decoded by peav at the span of the clip.

    Args:
        model: a folder, or a repository of the hub.
        revision: of the repository.
        licence: of the model, for the provenance.
        auto_class: of transformers, such as `AutoModelForCausalLM` for texts, `AutoModelForMultimodalLM` for sound and pictures, or
            `AutoModelForSeq2SeqLM`, which AudioFlamingo3 wants.
        gguf_file: of the folder, where the weights are quantised in that form.
        batch_size: requests at once.
        dtype: of the weights, such as `bfloat16`.
        device: to compute on.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        licence: str = "",
        auto_class: str = "AutoModelForCausalLM",
        gguf_file: str | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        import torch  # noqa: PLC0415  keeps the start of a run without it short
        import transformers  # noqa: PLC0415

        loader = getattr(transformers, auto_class, None)
        if loader is None or not hasattr(loader, "from_pretrained"):
            raise ValueError(f"transformers has no class {auto_class!r}: give one such as AutoModelForCausalLM")
        options: dict[str, Any] = {"revision": revision} if revision else {}
        options |= {"gguf_file": gguf_file} if gguf_file else {}
        self._torch, self.batch_size, self.device = torch, batch_size, device
        self._texts_only = auto_class == "AutoModelForCausalLM"
        self.model = load_pretrained(loader, model, dtype=getattr(torch, dtype), **options)
        self.model = self.model.to(device).eval()
        reader = transformers.AutoTokenizer if self._texts_only else transformers.AutoProcessor
        self.processor = load_pretrained(reader, model, **options)
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        tokenizer.padding_side = "left"  # what is generated follows the prompt at once
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._tokenizer = tokenizer

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a digest of the files of the model, and the type of its weights."""
        return {**super().identity(init_args), **{k: init_args[k] for k in ("revision", "gguf_file", "dtype")}}

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers in batches of requests that have the same media and settings."""
        answers: dict[int, Answer] = {}
        groups: dict[Any, list[int]] = {}
        for place, request in enumerate(requests):
            shape = None if request.frames is None else request.frames.shape
            key = (request.audio is None, shape, request.max_tokens, request.temperature)
            groups.setdefault(key, []).append(place)
        for places in groups.values():
            for first in range(0, len(places), self.batch_size):
                some = places[first : first + self.batch_size]
                answers |= dict(zip(some, self._run([requests[place] for place in some]), strict=True))
        return [answers[place] for place in range(len(requests))]

    def _run(self, requests: Sequence[Request]) -> list[Answer]:
        torch, first = self._torch, requests[0]
        processor: Any = self.processor
        conversations = [self._conversation(request) for request in requests]
        options: dict[str, Any] = {}
        if not self._texts_only:
            options = {"processor_kwargs": {"padding": True}}
            if first.audio is not None:
                options["processor_kwargs"]["sampling_rate"] = first.sample_rate
        else:
            options = {"padding": True}
        batch = processor.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **options
        ).to(self.device)
        sampling = (
            {"do_sample": True, "temperature": first.temperature} if first.temperature > 0 else {"do_sample": False}
        )
        with torch.inference_mode():
            made = self.model.generate(
                **batch, max_new_tokens=first.max_tokens, pad_token_id=self._tokenizer.pad_token_id, **sampling
            )
        prompt = batch["input_ids"].shape[1] if made.shape[1] >= batch["input_ids"].shape[1] else 0
        ends = self._ends()
        answers = []
        tokenizer: Any = self._tokenizer
        for row, ids in enumerate(made[:, prompt:].tolist()):
            length = next((place for place, token in enumerate(ids) if token in ends), None)
            own = ids if length is None else ids[:length]
            finish = "length" if length is None and len(own) >= first.max_tokens else "stop"
            text = tokenizer.decode(own, skip_special_tokens=True)
            count = int(batch["attention_mask"][row].sum()) if "attention_mask" in batch else prompt
            answers.append(Answer(text.strip(), finish, count, len(own)))
        return answers

    def _ends(self) -> set[int]:
        ends = self.model.generation_config.eos_token_id
        held = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        return {token for token in held if token is not None}

    def _conversation(self, request: Request) -> list[dict[str, Any]]:
        system: list[dict[str, Any]] = [{"role": "system", "content": request.system}] if request.system else []
        if self._texts_only:
            return [*system, {"role": "user", "content": request.text}]
        content: list[dict[str, Any]] = []
        if request.frames is not None:
            content += [{"type": "image", "image": frame.transpose(1, 2, 0)} for frame in request.frames]
        if request.audio is not None:
            content.append({"type": "audio", "audio": request.audio})
        system = [{"role": "system", "content": [{"type": "text", "text": request.system}]}] if request.system else []
        return [*system, {"role": "user", "content": [*content, {"type": "text", "text": request.text}]}]
