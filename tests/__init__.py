"""The suite. What its shared files assert is shown as what the tests themselves do."""

import pytest

pytest.register_assert_rewrite("tests.situations.situation")
