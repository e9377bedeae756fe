#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace switchyard::model {
namespace {

TEST(Rope, SineAndCosineAreAccurate) {
  for (double angle = 0; angle < 200000; angle = angle * 1.01 + 0.013) {
    const SineCosine at = sine_cosine(angle);
    EXPECT_NEAR(at.sine, std::sin(angle), 1e-9) << angle;
    EXPECT_NEAR(at.cosine, std::cos(angle), 1e-9) << angle;
  }
}

TEST(Rope, FrequenciesFollowTheConfiguration) {
  ModelConfig config;
  config.head_dim = 64;
  config.rope_theta = 10000;
  const auto plain = rope_frequencies(config, {});
  EXPECT_EQ(plain.size(), 32u);
  EXPECT_EQ(plain[0], 1.0f);
  EXPECT_FLOAT_EQ(plain[16], 0.01f);

  config.rope_scaling = {.kind = RopeScaling::Kind::linear, .factor = 4};
  EXPECT_FLOAT_EQ(rope_frequencies(config, {})[16], 0.0025f);

  // Llama 3.1: short wavelengths are kept, long ones divided by the factor.
  config.rope_theta = 500000;
  config.rope_scaling = {.kind = RopeScaling::Kind::llama3,
                         .factor = 8,
                         .low_frequency_factor = 1,
                         .high_frequency_factor = 4,
                         .original_context = 8192};
  const auto scaled = rope_frequencies(config, {});
  EXPECT_EQ(scaled[0], 1.0f);
  EXPECT_FLOAT_EQ(scaled[31], static_cast<float>(std::pow(500000.0, -62.0 / 64) / 8));

  const std::vector<float> factors(32, 2.0f);
  EXPECT_FLOAT_EQ(rope_frequencies(config, factors)[0], 0.5f);  // the file's factors replace the scaling
}

TEST(Rope, TableHoldsEveryPosition) {
  ModelConfig config;
  config.head_dim = 32;
  const auto frequencies = rope_frequencies(config, {});
  const RopeTable table(frequencies, 3000);
  for (const std::uint32_t position : {0u, 1u, 17u, 2999u}) {
    for (std::uint32_t i = 0; i < table.half(); ++i) {
      const double angle = static_cast<double>(position) * frequencies[i];
      EXPECT_FLOAT_EQ(table.cosines(position)[i], static_cast<float>(std::cos(angle)));
      EXPECT_NEAR(table.sines(position)[i], std::sin(angle), 1e-7);
    }
  }
}

}  // namespace
}  // namespace switchyard::model
