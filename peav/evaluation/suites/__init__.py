"""The suites that come with peav, as data: `datasets.yaml`, `tasks.yaml` and `suites.yaml`; `peav.evaluation.suite` reads them."""
