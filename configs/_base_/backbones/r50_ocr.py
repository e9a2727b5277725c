# ResNet-50 with OCRNet, a cascade of two heads: for `EncoderDecoder` only, see docs/backbones.md.
_base_ = './r50_fcn.py'
model = dict(
    type='CascadeEncoderDecoder',
    num_stages=2,
    decode_head=[
        dict(_base_.model.decode_head, in_channels=1024, in_index=2, num_convs=1, concat_input=False),
        dict(_base_.model.decode_head, type='OCRHead', ocr_channels=256)
    ])
