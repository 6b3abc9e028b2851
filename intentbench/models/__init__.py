"""The table of methods: key to "module:Class", one line a method, loaded on use."""

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from datamodules.errors import RequestError

if TYPE_CHECKING:
    from intentbench.models.base import Recommender

METHODS: dict[str, str] = {
    "popularity": "intentbench.models.popularity:Popularity",
    "markov": "intentbench.models.markov:Markov",
    "item_knn": "intentbench.models.item_knn:ItemKNN",
    "ease": "intentbench.models.ease:EASE",
    "bpr_mf": "intentbench.models.bpr_mf:BPRMF",
    "lightgcn": "intentbench.models.lightgcn:LightGCN",
    "sgl": "intentbench.models.sgl:SGL",
    "simgcl": "intentbench.models.simgcl:SimGCL",
    "dccf": "intentbench.models.dccf:DCCF",
    "bigcf": "intentbench.models.bigcf:BIGCF",
    "irllrec": "intentbench.models.irllrec:IRLLRec",
    "rlmrec_con": "intentbench.models.rlmrec_con:RLMRecCon",
    "rlmrec_gen": "intentbench.models.rlmrec_gen:RLMRecGen",
    "kar": "intentbench.models.kar:KAR",
    "alpharec": "intentbench.models.alpharec:AlphaRec",
    "semantic": "intentbench.models.semantic:Semantic",
    "gru4rec": "intentbench.models.gru4rec:GRU4Rec",
    "sasrec": "intentbench.models.sasrec:SASRec",
    "sasrec_text": "intentbench.models.sasrec_text:SASRecText",
    "indirec": "intentbench.models.indirec:InDiRec",
    "indirec_clusters": "intentbench.models.indirec_clusters:InDiRecClusters",
    "indirec_behaviours": "intentbench.models.indirec_behaviours:InDiRecBehaviours",
    "idclrec": "intentbench.models.idclrec:IDCLRec",
    "igr_sr": "intentbench.models.igr_sr:IGRSR",
    "igr_sr_text": "intentbench.models.igr_sr_text:IGRSRText",
    "bsarec": "intentbench.models.bsarec:BSARec",
    "fmlp_rec": "intentbench.models.fmlp_rec:FMLPRec",
    "caser": "intentbench.models.caser:Caser",
    "fpmc": "intentbench.models.fpmc:FPMC",
    "bert4rec": "intentbench.models.bert4rec:BERT4Rec",
    "icsrec": "intentbench.models.icsrec:ICSRec",
    "duorec": "intentbench.models.duorec:DuoRec",
    "cl4srec": "intentbench.models.cl4srec:CL4SRec",
    "cadirec": "intentbench.models.cadirec:CaDiRec",
    "diffurec": "intentbench.models.diffurec:DiffuRec",
    "dreamrec": "intentbench.models.dreamrec:DreamRec",
    "iclrec": "intentbench.models.iclrec:ICLRec",
    "elcrec": "intentbench.models.elcrec:ELCRec",
    "iocrec": "intentbench.models.iocrec:IOCRec",
    "coserec": "intentbench.models.coserec:CoSeRec",
    "intentrec": "intentbench.models.intentrec:IntentRec",
    "transact": "intentbench.models.transact:TransAct",
    "intent_sequence": "intentbench.models.intent_sequence:IntentSequence",
    "rearec": "intentbench.models.rearec:ReaRec",
    "sse_pt": "intentbench.models.sse_pt:SSEPT",
    "lightrec": "intentbench.models.lightrec:LightRec",
}
"""Methods of the suite; others join by entry point ("intentbench.methods") or `--plugin`."""

DIVISIBLE = frozenset(METHODS) - {"popularity", "markov", "item_knn", "ease", "semantic"}
"""Methods whose loss is the same, gradient included, when several processes share a batch: a test
holds it for each. A method from elsewhere says so by a class attribute `divisible = True`."""


def method_table() -> dict[str, str]:
    """METHODS and those that installed distributions add by entry point.

    Raises:
        RequestError: two distributions, or one and the suite, claim the same key.
    """
    table = dict(METHODS)
    for point in entry_points(group="intentbench.methods"):
        if table.setdefault(point.name, point.value) != point.value:
            raise RequestError(
                f"method {point.name!r} is defined twice: {table[point.name]} and {point.value}"
            )
    return table


def load_method(key: str) -> "type[Recommender]":
    """Import the class of a method.

    Raises:
        RequestError: no method has that key; the message lists those there are.
    """
    table = method_table()
    if key not in table:
        raise RequestError(f"unknown method {key!r}; known: {', '.join(sorted(table))}")
    module, name = table[key].split(":")
    loaded: type[Recommender] = getattr(import_module(module), name)
    return loaded
