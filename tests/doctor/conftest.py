"""A deployment at which the doctor finds nothing, to be made worse one thing at a time."""

from tests.support.doctor_deployment import examined, folder

__all__ = ["examined", "folder"]
