#include "base/bytes.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

TEST(Bytes, WhatIsWrittenIsRead) {
  ByteWriter writer;
  writer.write<std::uint32_t>(7);
  writer.write_string("rail");
  writer.write_vector<std::int32_t>(std::vector<std::int32_t>{1, -2, 3});
  ByteReader reader(writer.bytes());
  EXPECT_EQ(reader.read<std::uint32_t>(), 7u);
  EXPECT_EQ(reader.read_string(), "rail");
  EXPECT_EQ(reader.read_vector<std::int32_t>(), (std::vector<std::int32_t>{1, -2, 3}));
  EXPECT_TRUE(reader.finished());
}

TEST(Bytes, EveryTruncationFailsAndStaysFailed) {
  ByteWriter writer;
  writer.write_string("counter");
  writer.write_vector<std::uint64_t>(std::vector<std::uint64_t>{1, 2});
  for (std::size_t size = 0; size < writer.bytes().size(); ++size) {
    ByteReader reader(writer.bytes().first(size));
    reader.read_string();
    reader.read_vector<std::uint64_t>();
    EXPECT_FALSE(reader.ok()) << size;
    EXPECT_EQ(reader.read<std::uint64_t>(), 0u);
  }
}

TEST(Bytes, AnAbsurdCountAllocatesNothing) {
  ByteWriter writer;
  writer.write<std::uint32_t>(0xffffffff);
  ByteReader reader(writer.bytes());
  EXPECT_TRUE(reader.read_vector<std::uint64_t>().empty());
  EXPECT_FALSE(reader.ok());
}

}  // namespace
}  // namespace switchyard
