# The headline setting under the name of its family.
_base_ = './pcr_r101_voc.py'
