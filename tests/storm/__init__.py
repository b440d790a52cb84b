"""The storm: a whole site under every fault we can make, and what a checker says of it.

`plan` says from a seed what happens when, `world` makes it happen, `site` and `jobs` are what
the site is and does, `journal` is written outside the ZODB, `history` reads what the database
went through, `checker` compares the two, `violations` are what it must find. See CONTRIBUTING.rst.
"""
