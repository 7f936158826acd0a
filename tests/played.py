"""Evaluations of one model on one text in this process, whose decoder runs once."""

import functools

from trime_fairseq.tasks.trime_language_modeling import TrimeLanguageModelingTask

_passes = {}


class PlayedTask(TrimeLanguageModelingTask):
    """Remembers what the decoder of the last checkpoint made of each input: keys and outputs do not depend on
    the memories. All else is done each time."""

    def build_model(self, *args, **options):
        model = super().build_model(*args, **options)
        if self.config.path not in _passes:
            _passes.clear()
            _passes[self.config.path] = {}
        decoder = model.decoder
        decoder.forward = functools.partial(_play, decoder, decoder.forward, _passes[self.config.path])
        return model


def _play(decoder, forward, known, src_tokens, **others):
    queries_of = decoder.layers[-1].fc1
    batch = (tuple(src_tokens.shape), src_tokens.numpy().tobytes())
    if batch not in known:
        inputs = []
        handle = queries_of.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
        outputs = forward(src_tokens, **others)[0]
        handle.remove()
        known[batch] = outputs, inputs[-1]
    else:
        # Whoever looks at the representation has a hook there.
        queries_of(known[batch][1])
    return known[batch][0], {}
