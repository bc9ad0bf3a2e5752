from recbole.trainer import Trainer


class ALKDRecTrainer(Trainer):
    pass
