"""How long Hypothesis looks for histories and inputs that break us: HYPOTHESIS_PROFILE says it."""

import os

from hypothesis import settings


settings.register_profile('ci', derandomize=True, deadline=None, database=None)
settings.register_profile('thorough', max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'ci'))
