// Rules of the transfer engine that need exact timing, on a simulated network.
#include "support.h"

namespace switchyard::sim {
namespace {

class Rules : public OnCluster {};

TEST_F(Rules, AWriteArrivesAndIsCounted) {
  Machine &a = machine({PortOptions{}, PortOptions{}}), &b = machine({PortOptions{}});
  for (std::size_t i = 0; i < a.memory.size(); ++i) a.memory[i] = static_cast<std::byte>(i * 7 + i / 251);
  auto counter = engine(b).make_counter();
  Outcome reached, done;
  ASSERT_TRUE(counter->expect(1, TimePoint::max(), into(reached)));
  Write write = write_of(a, b, 0, 1 << 20);
  write.options.counter = counter->id();
  ASSERT_TRUE(engine(a).write(write, into(done)));
  ASSERT_TRUE(finishes(done));
  EXPECT_EQ(done.word(), "ok");
  ASSERT_TRUE(finishes(reached));
  EXPECT_EQ(a.memory, b.memory);
}

}  // namespace
}  // namespace switchyard::sim
