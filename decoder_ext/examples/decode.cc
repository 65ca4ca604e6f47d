// Decodes four frames over the labels blank, a, b. Give a word model (KenLM) as the first argument to use
// one.
#include <cmath>
#include <iostream>
#include <memory>

#include "longhand_decoder/decoder.h"

int main(int argc, char** argv) {
    longhand::DecoderConfig config;
    config.labels = {"", "a", "b"};
    config.options.alternatives = 3;
    if (argc > 1) config.word_model = std::make_shared<longhand::NgramLanguageModel>(argv[1]);
    const longhand::CtcBeamSearchDecoder decoder(config);

    float frames[4][3] = {{0.1f, 0.8f, 0.1f}, {0.7f, 0.2f, 0.1f}, {0.1f, 0.5f, 0.4f}, {0.2f, 0.1f, 0.7f}};
    for (auto& frame : frames) {
        for (float& probability : frame) probability = std::log(probability);
    }
    for (const auto& h : decoder.decode({&frames[0][0], 4, 3})) std::cout << h.text << ' ' << h.score << '\n';
}
