"""A manager in histories that nobody thought of: calls are put, run, cancelled, undone."""

import shutil
import tempfile

from hypothesis.stateful import run_state_machine_as_test
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage

from .managermachine import ManagerMachine


class OnFile(ManagerMachine):
    """One process with the database."""

    can_undo = True

    def databases(self):
        self._place = tempfile.mkdtemp(prefix='zasync-models-')
        self._db = DB(FileStorage(f'{self._place}/Data.fs'))
        return [self._db], 'zam'

    def close_databases(self):
        self._db.close()
        shutil.rmtree(self._place)


def test_a_manager_does_what_its_model_says():
    run_state_machine_as_test(OnFile)
