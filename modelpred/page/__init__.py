"""A live page on the training set: edit rows and see the retrained model.

    modelpred explore FOLDER        a saved ModelPred, or a project with artifacts/
    page = mp.explore()             in a notebook; page.stop() ends it

The page computes nothing. It calls a fitted ModelPred and shows the results.
"""

from modelpred.page.running import Page, explore, serve_folder

__all__ = ["Page", "explore", "serve_folder"]
