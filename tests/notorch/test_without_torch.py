"""Where torch is not installed, the plugin loads, and marked tests are skipped with the reason."""

from __future__ import annotations

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")


def test_a_marked_test_is_skipped_with_the_reason(pytester: pytest.Pytester) -> None:
    """No torch, no job: the skip says what to install."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job): pass
        """
    )
    result = pytester.runpytest("--ckpt-contract", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*pip install pytest-ckpt[[]torch]*"])
