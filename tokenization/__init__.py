"""Videos -> trajectories -> datasets of records; knows nothing of the model that reads them.

  from tokenization.extract import ExtractSettings, extract   # videos -> records
  from tokenization.manifest import read_entries              # a pattern, folder, file or manifest
  from tokenization.records import open_records               # records, at random
  from tokenization import pipeline, video                    # one video: frames -> trajectories

`python -m tokenization.extract`, `explore`, `annotations`, `world`, `import_official` and
`export_official` are commands, each with --help. Importing this loads nothing else.
"""
