"""A real run on images that are not RGB."""
import cv2
import numpy as np
import pytest
from mmengine.runner import Runner


@pytest.mark.parametrize('bands, suffix', [(4, '.npy'), (1, '.tif')])
@pytest.mark.parametrize('method', ['PCR', 'SemiEncoderDecoder'])
def test_trains_and_validates(make_cfg, data_root, bands, suffix, method):
    for path in list((data_root / 'img').rglob('*.png')):
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 30
        image = np.stack([gray // (i + 1) for i in range(bands)], axis=2)
        if suffix == '.npy':
            np.save(path.with_suffix(suffix), image)
        else:
            cv2.imwrite(str(path.with_suffix(suffix)), image)
        path.unlink()
    cfg = make_cfg(max_iters=3)
    cfg.model.data_preprocessor.update(mean=[60.] * bands, std=[40.] * bands)
    cfg.model.backbone.in_channels = bands
    jitter = dict(type='ColorJitter', prob=1.0)
    cfg.model.branches[0].augments = [jitter, dict(type='GaussianBlur', prob=1.0), *cfg.model.branches[0].augments]
    if method != 'PCR':
        cfg.model.type, cfg.custom_hooks = method, cfg.custom_hooks[:1]
        del cfg.model.prototype_head
    for dataset in (cfg.train_dataloader.dataset.labeled, cfg.train_dataloader.dataset.unlabeled,
                    cfg.val_dataloader.dataset):
        dataset.img_suffix = suffix
        dataset.pipeline[0] = dict(type='LoadBands', value_range=(0, 6000))
    runner = Runner.from_cfg(cfg)
    with pytest.warns(UserWarning, match=f'ColorJitter is left out: it needs RGB, and these images have {bands} chan'):
        runner.train()
    assert 'mIoU' in str(runner.message_hub.log_scalars.keys())
