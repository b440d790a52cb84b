"""docs/plugins.rst: its example plugins, its section and its calls, with a real worker."""

import gzip
import os
import re
import sys
from pathlib import Path

import pytest
import transaction
from OFS.Folder import Folder

from bench.stack import our_environment
from bench.stack import WORKER_READY_SECONDS


PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'plugins.rst'


def block(language, caption=None):
    """The content of the page's code block of that language and caption."""
    head = f'.. code-block:: {language}\n' + (f'   :caption: {caption}\n' if caption else '')
    (content,) = re.findall(re.escape(head) + r'\n((?:   .*\n|\n)+)', PAGE.read_text('utf-8'))
    return re.sub('^   ', '', content, flags=re.M)


@pytest.fixture
def shop(site, tmp_path):
    """The Site with the page's module, a worker that has the page's section, and a shop."""
    module = tmp_path / 'lib' / 'ourshop' / 'plugins.py'
    module.parent.mkdir(parents=True)
    (module.parent / '__init__.py').write_text('', 'ascii')
    module.write_text(block('python', 'ourshop/plugins.py'), 'utf-8')
    (tmp_path / 'exports').mkdir()
    site.app._setObject('shop', Folder('shop'))
    for id in ('cups', 'pots'):
        site.app.shop._setObject(id, Folder(id))
    transaction.commit()
    site.exports = tmp_path / 'exports'
    start_worker(site, module.parent.parent)
    # Our connection may hear of the start a moment later than its line is in the log.
    site.wait(lambda: 'compress' in dict(site.app.zam1.queue.card.plugins), what='the plugin')
    return site


def start_worker(site, library):
    etc = site.stack.make_instance() / 'etc'
    # A file has one section for the environment, and the page has ours.
    included = (etc / 'zope.conf').read_text('utf-8')
    included = re.sub(r'<environment>.*</environment>\n', '', included, flags=re.S)
    section = block('none', 'etc/zasync.conf').replace('/srv/exports', str(site.exports))
    (etc / 'zam1.conf').write_text(f'{included}target /zam1\n{section}', 'utf-8')
    env = our_environment()
    env['PYTHONPATH'] += os.pathsep + str(library)
    return site.stack.start(
        'zam1', [sys.executable, '-m', 'zasync_client', '-C', etc / 'zam1.conf'], env=env,
        is_ready=lambda process: ' serves /zam1 ' in process.output(),
        ready_seconds=WORKER_READY_SECONDS)


def test_the_example_runs_as_it_stands_in_the_page(shop):
    (shop.exports / 'orders.csv').write_bytes(b'cup;1\n' * 1000)
    shop.become('boss')
    transaction.begin()
    names = {'manager': shop.app.zam1}
    for line in re.findall('^>>> (.*)$', block('pycon'), re.M):
        exec(line, names)
    transaction.commit()
    shop.ended(names['compressed'], names['renamed'])
    before, after = names['compressed'].result
    assert (before, gzip.decompress((shop.exports / 'orders.csv.gz').read_bytes())) == (
        6000, b'cup;1\n' * 1000)
    assert after < before
    assert names['renamed'].failure is None
    assert names['renamed'].result == 2
    assert (shop.app.shop.cups.title, shop.app.shop.pots.title) == ('Cups', 'Pots and pans')


def test_the_example_refuses_what_its_page_says_it_refuses(shop):
    (shop.exports.parent / 'secret').write_text('x', 'ascii')
    shop.become('bob')
    astray = shop.put('compress', '../secret')
    forbidden = shop.put('retitle', '/shop', {'cups': 'mine'})
    shop.ended(astray, forbidden)
    assert 'without a directory' in astray.failure.text
    assert not (shop.exports.parent / 'secret.gz').exists()
    assert forbidden.failure.type_name.endswith('Unauthorized')
    assert shop.app.shop.cups.title == ''
