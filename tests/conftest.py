"""How long Hypothesis looks for what breaks us: HYPOTHESIS_PROFILE in the environment says it.

ci -- the same few inputs each time. thorough -- many, and others each time. fuzz -- a round of
`make fuzz`: some, and others each time.
"""

import os

from hypothesis import settings


settings.register_profile('ci', max_examples=40, derandomize=True, deadline=None, database=None)
settings.register_profile('thorough', max_examples=2_000, deadline=None)
settings.register_profile('fuzz', max_examples=200, deadline=None)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'ci'))
