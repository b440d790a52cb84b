"""What Dovecot has to be told, in the languages of 2.3 and 2.4, to serve a test.

Loopback only, no PAM, no system accounts, nothing outside the directory of the test.

Imports: nothing of ours.
"""

import grp
import os
import pwd
import re
import shutil
import subprocess


def dovecot_program():
    """The path of dovecot, or None; other users than root may not have sbin in their PATH."""
    path = os.environ.get('PATH', os.defpath) + ':/usr/sbin:/usr/local/sbin'
    return shutil.which('dovecot', path=path)


def dovecot_version(program):
    """-> (2, 3), (2, 4), ..."""
    answer = subprocess.run([program, '--version'], capture_output=True, text=True, check=True)
    major, minor = re.match(r'(\d+)\.(\d+)', answer.stdout).groups()
    return int(major), int(minor)


def server_user():
    """Names of the user and the group that Dovecot's processes run as; None if there are none."""
    if os.geteuid() != 0:
        try:
            return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        except KeyError:  # numbers without names, as in a container
            return None
    for name in ('nobody', 'mail', 'daemon'):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return name, grp.getgrgid(entry.pw_gid).gr_name
    return None


def dovecot_conf(server, user, group):
    """The configuration for a DovecotServer, in the language of its version."""
    new = server.version >= (2, 4)
    values = {'base': server.base_dir, 'port': server.port, 'user': user, 'group': group,
              'separator': server.separator}
    parts = [_CONF_24 if new else _CONF_23, _CONF_COMMON]
    if server.tls_port:
        values['tls_port'] = server.tls_port
        parts.append(_TLS_24 if new else _TLS_23)
    else:
        parts.append(_NO_TLS)
    if not server.condstore:
        parts.append('imap_capability = %s\n' % _POOR_CAPABILITIES)
    text = ''.join(parts)
    return re.sub('@([a-z_]+)@', lambda match: str(values[match[1]]), text)


_CONF_23 = '''\
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%u @base@/users
}
userdb {
  driver = static
  args = uid=@user@ gid=@group@ home=@base@/mail/%u
}
'''

_CONF_24 = '''\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
auth_allow_cleartext = yes
mail_driver = maildir
mail_path = ~/Maildir
mail_home = @base@/mail/%{user}
passdb passwd-file {
  passwd_file_path = @base@/users
}
userdb static {
  fields {
    uid = @user@
    gid = @group@
    home = @base@/mail/%{user}
  }
}
'''

# No process is put into a chroot and each runs as one user, so that neither root nor an
# installed /var/run is needed. mail_fsync: nothing here has to survive a power cut.
# anvil-auth-penalty: a failed login would delay every later one from 127.0.0.1 by seconds.
_CONF_COMMON = '''\
base_dir = @base@/run
state_dir = @base@/run
instance_name = zasync-test
log_path = @base@/server.log
protocols = imap
listen = 127.0.0.1
auth_mechanisms = plain login
auth_failure_delay = 0
default_internal_user = @user@
default_internal_group = @group@
default_login_user = @user@
mail_uid = @user@
mail_gid = @group@
first_valid_uid = 1
first_valid_gid = 1
mail_fsync = never
mail_max_userip_connections = 200
namespace inbox {
  inbox = yes
  separator = @separator@
}
service imap-login {
  chroot =
  process_limit = 200
  inet_listener imap {
    port = @port@
  }
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  chroot =
}
'''

_NO_TLS = '''\
ssl = no
service imap-login {
  inet_listener imaps {
    port = 0
  }
}
'''

_TLS_LISTENER = '''\
ssl = yes
service imap-login {
  inet_listener imaps {
    port = @tls_port@
    ssl = yes
  }
}
'''

_TLS_23 = 'ssl_cert = <@base@/cert.pem\nssl_key = <@base@/key.pem\n' + _TLS_LISTENER
_TLS_24 = ('ssl_server_cert_file = @base@/cert.pem\nssl_server_key_file = @base@/key.pem\n'
           + _TLS_LISTENER)

_POOR_CAPABILITIES = ('IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE UIDPLUS NAMESPACE CHILDREN '
                      'UNSELECT')


def make_certificate(cert_path, key_path):
    """A certificate for localhost and 127.0.0.1, signed by itself, good for two days."""
    subprocess.run(
        ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
         '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1',
         '-keyout', str(key_path), '-out', str(cert_path)],
        check=True, capture_output=True)
