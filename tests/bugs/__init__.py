"""Published bugs of training frameworks, run as real jobs: found where a release has them, else silent."""
