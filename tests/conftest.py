"""What all tests share."""

import hypothesis

pytest_plugins = ("tests.servers",)

# A slow machine is no defect.
hypothesis.settings.register_profile("bookmesh", deadline=None)
hypothesis.settings.load_profile("bookmesh")
