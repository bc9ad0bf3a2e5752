from recbole.data.dataset import SequentialDataset


class ALKDRecDataset(SequentialDataset):
    pass
