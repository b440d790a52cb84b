"""Handlers for a worker of the tests that know a password and fail."""


def break_off(run, path):
    """Log in to the server of a mailbox and fail with all of it in variables."""
    box = run.app.unrestrictedTraverse(path)
    with box._connect() as session:
        account = session.account
        values = {'login': account.login, 'password': account.password}
        folders = session.folders()
        _hand_on(account.password)
    return values, folders


def _hand_on(password):
    _say_more(password, [password])


def _say_more(text, texts):
    try:
        raise ValueError(text.casefold())
    except ValueError as reason:
        other = LookupError(text)
        raise RuntimeError(f'in the middle, with {type(reason).__name__} and {other!r:.5}'
                           ) from None
