"""Emits numbered events as fast as the original engine can, by its own class: burst.py MACHINE COUNT"""
import sys

from statemachine_engine.core.engine import StateMachineEngine
from statemachine_engine.database.models import get_job_model

engine = StateMachineEngine(machine_name=sys.argv[1])
# What it writes by when nobody takes its events.
engine.context = {"job_model": get_job_model()}
for number in range(int(sys.argv[2])):
    engine._emit_realtime_event("burst", {"n": number})
