"""Public contract checks for plugins: call them from your own tests.

    from peav.testing import check_encoder, check_objective

    def test_my_objective():
        check_objective(lambda: MyObjective("audio", "video"))

Every encoder, objective, adapter and gate registered in this repository passes the same checks.
"""

from peav.testing.adapters import check_adapter
from peav.testing.backends import check_backend, tiny_requests
from peav.testing.encoders import check_encoder
from peav.testing.gates import check_gate, tiny_captions
from peav.testing.objectives import check_objective
from peav.testing.ranks import GlooPool, check_objective_on_ranks
from peav.testing.stages import check_stage, tiny_columns
from peav.testing.tiny import tiny_batch, tiny_embeddings, tiny_events, tiny_targets, tiny_text

__all__ = [
    "GlooPool",
    "check_adapter",
    "check_backend",
    "check_encoder",
    "check_gate",
    "check_objective",
    "check_objective_on_ranks",
    "check_stage",
    "tiny_batch",
    "tiny_captions",
    "tiny_columns",
    "tiny_embeddings",
    "tiny_events",
    "tiny_requests",
    "tiny_targets",
    "tiny_text",
]
