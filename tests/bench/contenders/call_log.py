"""One line a call in a file, as the other contenders write their access logs. LiteLLM calls it after each answer."""

import os

from litellm.integrations.custom_logger import CustomLogger


class Calls(CustomLogger):
    def __init__(self):
        super().__init__()
        self.file = open(os.environ["CALL_LOG"], "a", buffering=1)

    def write(self, kwargs, start, end, status):
        usage = (kwargs.get("standard_logging_object") or {}).get("total_tokens")
        self.file.write(f"{start.isoformat()} {kwargs.get('litellm_call_id')} {kwargs.get('model')} {status} {usage} {end - start}\n")

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.write(kwargs, start_time, end_time, "ok")

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.write(kwargs, start_time, end_time, "failed")


calls = Calls()
