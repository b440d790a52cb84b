"""Form fields as plain mappings for www/form.zpt, made of parameters. Pure.

Imports: parameters.
"""

from ..parameters import BY_NAME


#: Choices for what a mailbox may do with a parameter of the tool, see parameters.
FLAG_CHOICES = ((0, 'mailboxes may change it'), (1, 'the same for all mailboxes'),
                (-1, 'not shown in mailboxes'))


def field(name, value, problem='', required=False):
    """The field of one parameter. A secret's value never gets into it."""
    parameter = BY_NAME[name]
    kinds = {'secret': 'password', 'choice': 'choice', 'integer': 'number'}
    return {
        'name': name,
        'label': parameter.label,
        'kind': kinds.get(parameter.kind, 'text'),
        'value': '' if parameter.kind == 'secret' else str(value),
        'choices': [{'value': str(choice), 'label': label, 'selected': str(choice) == str(value)}
                    for choice, label in parameter.choices],
        'help': parameter.help,
        'problem': problem,
        'required': required,
        'flag_name': '',
        'flags': [],
    }


def text_field(name, label, value, help='', problem='', required=True):
    """A field that is no parameter."""
    return {'name': name, 'label': label, 'kind': 'text', 'value': str(value), 'choices': [],
            'help': help, 'problem': problem, 'required': required, 'flag_name': '',
            'flags': []}


def flagged_field(name, value, flag, problem=''):
    """The field of a parameter of the tool, with the choice of its flag."""
    made = field(name, value, problem)
    made['flag_name'] = flag_name(name)
    made['flags'] = [{'value': str(choice), 'label': label, 'selected': choice == flag}
                     for choice, label in FLAG_CHOICES]
    return made


def flag_name(name):
    """The name of the flag's control in the form."""
    return name + '_flag'


def fields(names, values, raw=None, problems=None):
    """Fields of several parameters: what was typed (`raw`) or else what is stored."""
    raw, problems = raw or {}, problems or {}
    return [field(name, raw.get(name, values.get(name, BY_NAME[name].default)),
                  problems.get(name, '')) for name in names]
