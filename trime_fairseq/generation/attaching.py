"""Opens the datastores that the flags name, and attaches one to each model of an ensemble."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fairseq import utils
from fairseq.data import Dictionary

from ..datastore import DatastoreError
from ..evaluation.external import KeySource, open_external
from ..files import symbols_hash
from ..models.representation import key_dimension
from .config import TranslationMemoryConfig
from .memory import ModelMemory, check_decoder
from .mixture import Mixture


def attach_memories(
    models: Sequence[Any],
    config: TranslationMemoryConfig,
    dictionary: Dictionary,
    language: str,
    divided_by: float,
) -> None:
    """Gives each model the memory that the flags name; a model that has just this one keeps it.

    Args:
        models: the ensemble, on the devices where they will run.
        config: checked.
        dictionary: of the target language.
        language: its name, as in dict.NAME.txt.
        divided_by: the generator's ``--temperature``.

    Raises:
        ValueError: for models that no memory can join.
        DatastoreError: for datastores and indexes that are missing, damaged or another model's.
    """
    stores = config.stores()
    if len(stores) != len(models):
        raise ValueError(
            f"--dstore-filename names {len(stores)} datastores for {len(models)} models of --path: give one "
            "for each, in the same order, as D1:D2 (the same twice if the models share it)"
        )
    paths: list[str | None] = utils.split_paths(config.path) if config.path else []
    if len(paths) != len(models):  # of a program that loads models by itself
        paths = [None] * len(models)
    for model, path, (store, index) in zip(models, paths, stores, strict=True):
        own = replace(config, path=path, dstore_filename=store, indexfile=index)
        memory = ModelMemory.of(model)
        if memory is None or memory.config != own:
            if memory is not None:
                memory.detach()
            memory = _attach(model, own, dictionary, language)
        memory.divided_by = divided_by


def _attach(
    model: Any, config: TranslationMemoryConfig, dictionary: Dictionary, language: str
) -> ModelMemory:
    """The memory of one model, whose checkpoint, datastore and index ``config`` names."""
    try:
        check_decoder(model.decoder)
        dimension = key_dimension(model.decoder, "model_output")
    except ValueError as error:
        raise ValueError(f"--use-knn-datastore: --path {config.path}: {error}") from None
    source = KeySource(
        dimension,
        "model_output",
        symbols_hash(dictionary.symbols),
        config.path,
        len(dictionary),
        dictionary=f"DATA/dict.{language}.txt",
        dictionary_flag="--tgtdict",
        chooses_key_type=False,
    )
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    searched = replace(config, knn_sim_func=config.similarity)
    retriever, _, metric = open_external(searched, source, on_gpu)
    if config.similarity == "do_not_recomp_l2" and metric != "l2":
        raise DatastoreError(
            f"--knn-sim-func do_not_recomp_l2 takes the L2 distances of Faiss, but the index "
            f"{config.indexfile} is for {metric}: leave it out"
        )
    mixture = Mixture.create(
        config.knn_lambda_type, config.knn_temperature_value, dimension, config.knn_lambda_value
    )
    return ModelMemory(model, retriever, mixture, config)
