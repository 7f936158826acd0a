"""TRIME as a plug-in of fairseq. Importing the package imports nothing else.

``--user-dir trime_fairseq`` registers task, criterions and architectures: fairseq imports the folders
``tasks`` and ``models`` by itself. ``memory``, ``datastore`` and ``bm25`` work without fairseq.
"""

__version__ = "0.1.0"
