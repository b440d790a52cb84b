"""zasync: background calls for Zope, their dispatcher, their worker and a user of them.

One distribution holds the three products (``Products.zasync``, ``Products.zasyncdispatcher``,
``Products.CPSMailAccess``) and the worker (``zasync_client``). ``Products`` is a PEP 420 namespace
shared with other distributions: there is no ``Products/__init__.py``.
"""

from pathlib import Path

from setuptools import find_namespace_packages
from setuptools import setup


VERSION = '2.0.0'
HERE = Path(__file__).resolve().parent

MAIL = ['IMAPClient >= 3.1']
DEMO = MAIL + ['Zope[wsgi] >= 5.13', 'pymap >= 0.36', 'requests']
SESSIONS = ['Products.Sessions', 'Products.TemporaryFolder']
METRICS = ['prometheus_client >= 0.20']
TEST = DEMO + SESSIONS + METRICS + [
    'Products.PythonScripts',
    'RelStorage',
    'WebTest',
    'beautifulsoup4',
    'grimp',
    'hypothesis',
    'import-linter >= 2.5',
    'mypy >= 1.15',
    'psycopg2-binary',
    'pytest >= 8',
    'pytest-timeout',
    'pytest-xdist',
    'ruff',
    'selenium >= 4.20',
]


def long_description():
    """README.rst and CHANGES.rst, as the package index shows them."""
    pages = [HERE / 'README.rst', HERE / 'CHANGES.rst']
    return '\n\n'.join(page.read_text('utf-8') for page in pages if page.exists())


setup(
    name='zasync',
    version=VERSION,
    description='Background calls for Zope, in the transaction that asks for them',
    long_description=long_description(),
    long_description_content_type='text/x-rst',
    license='ZPL 2.1',
    license_files=['LICENSE.txt'],
    keywords='zope zodb zeo background asynchronous queue worker imap',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Environment :: Web Environment',
        'Framework :: Zope :: 5',
        'Framework :: Zope :: 6',
        'Intended Audience :: Developers',
        'Intended Audience :: System Administrators',
        'License :: OSI Approved :: Zope Public License',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: System :: Distributed Computing',
    ],
    python_requires='>= 3.11',
    # `package_dir` is spelt out because setuptools then makes an editable install a plain .pth
    # file. Its other way, an import hook, hides `Products` from pkgutil, which is how Zope finds
    # the products.
    package_dir={'': '.'},
    packages=find_namespace_packages(
        include=['Products.*', 'zasync_client', 'zasync_client.*'], exclude=['*.__pycache__']),
    package_data={'': [
        'py.typed', '*.dtml', '*.pt', '*.zpt', '*.xml', '*.zcml', '*.txt', '*.rst',
        '*.css', '*.js', '*.svg', '*.png', '*.gif',
    ]},
    include_package_data=True,
    zip_safe=False,
    install_requires=[
        'AccessControl',
        'Acquisition',
        'BTrees',
        'DateTime',
        'cronsim >= 2.6',
        'cryptography >= 42',
        'persistent',
        'pytz',
        'transaction',
        'tzdata',
        'zExceptions',
        'ZConfig',
        'ZEO >= 6',
        'ZODB >= 6',
        'Zope >= 5.13',
        'zope.component',
        'zope.container',
        'zope.event',
        'zope.globalrequest',
        'zope.i18n',
        'zope.i18nmessageid',
        'zope.interface',
        'zope.lifecycleevent',
        'zope.processlifetime',
        'zope.publisher',
        'zope.security',
    ],
    extras_require={
        'mail': MAIL,
        'ldap': ['python-ldap >= 3.4.5'],
        'sessions': SESSIONS,
        'relstorage': ['RelStorage[postgresql]'],
        'metrics': METRICS,
        'demo': DEMO,
        'docs': ['sphinx'],
        'test': TEST,
    },
    entry_points={'console_scripts': ['zasync_client = zasync_client.cli:main']},
)
