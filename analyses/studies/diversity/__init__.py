"""Memory or regression: which predictor do models become that draw functions from pools of several sizes?"""
