"""The functions that users call as `apyfal.storage.*`."""
