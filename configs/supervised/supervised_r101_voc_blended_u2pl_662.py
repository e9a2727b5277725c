# The headline setting under the name of its family.
_base_ = './supervised_r101_voc.py'
