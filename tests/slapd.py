"""OpenLDAP's slapd with a small directory, on free ports of the loopback, for as long as a test.

    with Slapd() as server:
        server.plain          'ldap://127.0.0.1:20389'
        server.tls            'ldaps://127.0.0.1:20636', with a certificate of server.ca_file

The packaged service and its directory are left alone: program, configuration, data and
certificates are in one temporary directory.

Imports: nothing of ours but bench.processes.
"""

import base64
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from bench.processes import accepts
from bench.processes import free_port
from bench.processes import Process


HOST = '127.0.0.1'

BASE = 'dc=example,dc=org'
PEOPLE = f'ou=people,{BASE}'

#: Who may log in. The password has what LDAP, shells and logs could trip over.
USER, PASSWORD = f'uid=zoe,{PEOPLE}', 'très secret "%s" {x}\\'

#: A value of a binary attribute that happens to be text too.
PHOTO = b'\xff\xd8\xff\xe0 not really a photo'
TEXT_PHOTO = b'looks like text'

#: More entries than SERVER_LIMIT are below this one.
CROWD = f'ou=crowd,{BASE}'
CROWD_SIZE = 60

#: How many entries this server gives for one question, whatever the client allows.
SERVER_LIMIT = 50

READY_SECONDS = 20.0

_CONF = '''\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {base}/slapd.pid
argsfile {base}/slapd.args
sizelimit {limit}
{tls}
database mdb
suffix "dc=example,dc=org"
directory {base}/data
maxsize 10485760
dbnosync
access to attrs=userPassword by anonymous auth by * none
access to dn.base="uid=zoe,ou=people,dc=example,dc=org" attrs=mail by self read by * none
access to * by * read
'''

_TLS_CONF = '''\
TLSCACertificateFile {base}/ca.pem
TLSCertificateFile {base}/cert.pem
TLSCertificateKeyFile {base}/key.pem
'''


class SlapdMissing(Exception):
    """slapd is not installed."""


def slapd_program():
    """The path of slapd, or None; other users than root may not have sbin in their PATH."""
    path = os.environ.get('PATH', os.defpath) + ':/usr/sbin:/usr/local/sbin'
    return shutil.which('slapd', path=path)


def entries():
    """The directory: [(dn, {attribute: [values]})], str and bytes."""
    people = [
        (BASE, {'objectClass': ['dcObject', 'organization'], 'dc': ['example'],
                'o': ['Example']}),
        (PEOPLE, {'objectClass': ['organizationalUnit'], 'ou': ['people']}),
        (USER, {'objectClass': ['inetOrgPerson'], 'uid': ['zoe'], 'cn': ['Zoë Łącka'],
                'sn': ['Łącka'], 'mail': ['zoe@example.org', 'z@example.org'],
                'userPassword': [PASSWORD], 'jpegPhoto': [PHOTO, TEXT_PHOTO]}),
        (f'uid=bob,{PEOPLE}', {'objectClass': ['inetOrgPerson'], 'uid': ['bob'], 'cn': ['Bob'],
                               'sn': ['Bob'], 'jpegPhoto': [TEXT_PHOTO]}),
        (f'ou=elsewhere,{BASE}', {'objectClass': ['referral', 'extensibleObject'],
                                  'ou': ['elsewhere'],
                                  'ref': ['ldap://127.0.0.1:1/dc=elsewhere,dc=org']}),
        (CROWD, {'objectClass': ['organizationalUnit'], 'ou': ['crowd']}),
    ]
    crowd = [(f'ou=unit{number:02},{CROWD}',
              {'objectClass': ['organizationalUnit'], 'ou': [f'unit{number:02}']})
             for number in range(CROWD_SIZE)]
    return people + crowd


class Slapd:
    """One slapd. tls -- it has a certificate for 127.0.0.1, and a port for TLS at once.

    plain, tls -- its URIs; `tls` is None without. ca_file -- who signed its certificate.
    other_ca_file -- somebody who did not.
    """

    def __init__(self, tls=True):
        self._with_tls = tls
        self.port = free_port()
        self.tls_port = free_port() if tls else None

    @property
    def plain(self):
        return f'ldap://{HOST}:{self.port}'

    @property
    def tls(self):
        return f'ldaps://{HOST}:{self.tls_port}' if self.tls_port else None

    @property
    def log(self):
        return (self.base_dir / 'slapd.log').read_text('utf-8', 'replace')

    def __enter__(self):
        found = slapd_program()
        if found is None:
            raise SlapdMissing('slapd is not installed (Debian: apt-get install slapd)')
        self.base_dir = Path(tempfile.mkdtemp(prefix='zl-'))
        try:
            self._start(found)
            return self
        except BaseException:
            self.__exit__()
            raise

    def _start(self, found):
        base = self.base_dir
        (base / 'data').mkdir()
        # A copy, because AppArmor lets the one at its usual path read nothing but its own files.
        program = shutil.copy(found, base / 'slapd')
        if self._with_tls:
            make_authority(base / 'ca')
            make_authority(base / 'other')
            make_certificate(base / 'ca', base / 'cert.pem', base / 'key.pem',
                             f'IP:{HOST},DNS:{socket.gethostname()}')
        self.ca_file, self.other_ca_file = str(base / 'ca.pem'), str(base / 'other.pem')
        conf = base / 'slapd.conf'
        conf.write_text(_CONF.format(
            base=base, limit=SERVER_LIMIT,
            tls=_TLS_CONF.format(base=base) if self._with_tls else ''), 'utf-8')
        (base / 'entries.ldif').write_text(''.join(map(_ldif, entries())), 'ascii')
        subprocess.run([program, '-Tadd', '-f', conf, '-l', base / 'entries.ldif'],
                       check=True, capture_output=True, timeout=60)
        urls = ' '.join(url for url in (self.plain, self.tls) if url)
        self.process = Process(
            'slapd', [program, '-d', 'stats', '-f', conf, '-h', urls], base / 'slapd.log',
            is_ready=self._is_ready, ready_seconds=READY_SECONDS, death_signal=signal.SIGTERM)
        self.process.start()

    def _is_ready(self, process):
        ports = [port for port in (self.port, self.tls_port) if port]
        return all(accepts(HOST, port) for port in ports)

    def __exit__(self, *exc_info):
        process = getattr(self, 'process', None)
        if process is not None:
            process.stop()
        shutil.rmtree(self.base_dir, ignore_errors=True)


def _ldif(entry):
    """An entry as LDIF; every value in base64, so that nothing has to be quoted."""
    dn, attributes = entry
    lines = [f'dn:: {_base64(dn)}']
    for name, values in attributes.items():
        lines += [f'{name}:: {_base64(value)}' for value in values]
    return '\n'.join(lines) + '\n\n'


def _base64(value):
    data = value if isinstance(value, bytes) else value.encode('utf-8')
    return base64.b64encode(data).decode('ascii')


_NEW = ['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
        '-nodes', '-days', '2']


def make_authority(path):
    """A certificate authority: path.pem and path.key."""
    subprocess.run([*_NEW, '-subj', f'/CN=Test authority {path.name}', '-keyout', f'{path}.key',
                    '-out', f'{path}.pem'], check=True, capture_output=True, timeout=60)


def make_certificate(authority, cert_path, key_path, names):
    """A server's certificate. names -- as in 'IP:127.0.0.1,DNS:ldap.example.org'."""
    subprocess.run([*_NEW, '-CA', f'{authority}.pem', '-CAkey', f'{authority}.key',
                    '-subj', '/CN=slapd', '-addext', f'subjectAltName={names}',
                    '-addext', 'basicConstraints=critical,CA:FALSE',
                    '-keyout', key_path, '-out', cert_path],
                   check=True, capture_output=True, timeout=60)
