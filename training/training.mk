# Training: what researchers type. Data lies at DATA, runs below runs/ (neither is committed).

DATA ?= ../shared/data
FONTS ?= runs/fonts
FRENCH ?= runs/french.txt
CUTS ?= runs/word_cuts.json
RUN ?= runs/en
BUNDLE ?= server/longhand_server/models/en
TRAIN := $(PY) -m longhand_training

.PHONY: fonts
fonts: $(TRAINING) ## fetch handwriting fonts for training into FONTS
	@$(TRAIN).fonts $(FONTS)

.PHONY: word-cuts
word-cuts: $(TRAINING) ## find the words of scanned training lines with BUNDLE's model (8 minutes), into CUTS
	@$(TRAIN).word_cuts $(BUNDLE) --data $(DATA) --out $(CUTS)

.PHONY: preview
preview: $(TRAINING) ## draw a contact sheet of training lines: preview.png
	@$(TRAIN).preview --data $(DATA) $(if $(wildcard $(FONTS)),--fonts $(FONTS)) \
	    $(if $(wildcard $(CUTS)),--word-cuts $(CUTS)) --out preview.png

.PHONY: train
train: $(TRAINING) ## train, or go on with, the run in RUN [ARGS="--minutes 120"]
	@$(TRAIN).train --data $(DATA) $(if $(wildcard $(FONTS)),--fonts $(FONTS)) \
	    $(if $(wildcard $(CUTS)),--word-cuts $(CUTS)) --out $(RUN) $(ARGS)

.PHONY: train-smoke
train-smoke: $(TRAINING) ## a tiny network learns 200 short lines by heart (about a minute)
	@$(TRAIN).smoke --data $(DATA)

.PHONY: french-text
french-text: $(TRAINING) ## fetch French prose for the language models into FRENCH
	@$(TRAIN).french_text $(FRENCH)

.PHONY: language-models
language-models: $(TRAINING) ## build word.klm and char.klm from DATA/text and FRENCH into runs/lm [ARGS="--text mine.txt"]
	@$(TRAIN).language_model --data $(DATA) $(if $(wildcard $(FRENCH)),--corpus $(FRENCH)) --out runs/lm $(ARGS)

.PHONY: evaluate
evaluate: $(TRAINING) ## measure BUNDLE on the validation lines of DATA, every decoder setting
	@$(TRAIN).evaluate $(BUNDLE) --data $(DATA) --out runs/evaluation $(ARGS)

.PHONY: ablate
ablate: $(TRAINING) ## what sources and parts are worth: small networks in runs/ablate [ARGS="--lines 16000"]
	@$(TRAIN).ablate --data $(DATA) $(if $(wildcard $(FONTS)),--fonts $(FONTS)) $(ARGS)

.PHONY: card
card: $(TRAINING) ## the figures of runs/evaluation into BUNDLE's model card
	@$(TRAIN).card $(BUNDLE) runs/evaluation/accuracy.txt

.PHONY: model
model: $(TRAINING) ## RUN's best weights and runs/lm's language models into BUNDLE, tuned [VERSION=...]
	@$(TRAIN).export $(RUN)/best.pt --out $(BUNDLE) --name en --version $(or $(VERSION),0) \
	    --word-model runs/lm/word.klm --character-model runs/lm/char.klm --data $(DATA)
	@$(TRAIN).tune $(BUNDLE) --data $(DATA)
