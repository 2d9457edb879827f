"""The networks of the method, one a file (torch).

Where the elements of the method (CN111753908A claim 1; arXiv 2007.15874, abstract) are:

- residual generators G12 and G21, of convolution and pooling layers: ``generator.ResidualGenerator``
- discriminators D1 and D2: ``discriminator.Discriminator``
- task-specific feature extractor T, applied to either style: ``features.LesionTrunk``, by
  ``models.training.styles.Translator.task_features``
- adversarial loss: ``models.training.losses.generator_loss`` and ``discriminator_loss``
- residual cycle loss and its mirror: ``models.training.losses.residual_cycle_loss``
- alternating optimisation: ``models.training.adapter.AdapterTraining.update``
- classifier, supervised on second-style pictures only: ``classifier.FundusClassifier``
- ablations: values of ``models.training.adapter_config.AdapterConfig``; ``plain.PlainGenerator``
"""
