"""What all tests share."""

import signal

import hypothesis

pytest_plugins = ("tests.servers",)

# A slow machine is no defect.
hypothesis.settings.register_profile("bookmesh", deadline=None)
hypothesis.settings.load_profile("bookmesh")

# Whoever runs the tests in the background may have had SIGINT ignored, and what they start would inherit that: the
# commands that they interrupt as Ctrl-C does would go on.
signal.signal(signal.SIGINT, signal.default_int_handler)
