package config

import (
	"fmt"
	"strings"
)

func (c *Config) validateTopics(f *faults) {
	validateSuffix(f, keyOrderedSuffix, c.OrderedSuffix)
	validateSuffix(f, keyLateSuffix, c.LateSuffix)
	if !f.read(keyTopics) {
		return
	}
	if len(c.Topics) == 0 {
		f.add(keyTopics, "not set", "the topics to bring in order, like "+keyTopics+"=orders,payments")
	}
	for _, topic := range c.Topics {
		if why := illegal(topic); why != "" {
			f.add(keyTopics, fmt.Sprintf("%q %s", topic, why), hintList(topic, ""))
		} else if output := c.longestOutput(topic); len(output) > longestTopic {
			f.add(keyTopics, fmt.Sprintf("the output %q is longer than %d characters", output, longestTopic), "")
		}
	}
	if kafkaName(c.OrderedSuffix) == kafkaName(c.LateSuffix) {
		f.add(keyLateSuffix, fmt.Sprintf("%q gives the same topics as %s=%q", c.LateSuffix, keyOrderedSuffix, c.OrderedSuffix), "Kafka takes . and _ for the same")
		return
	}
	c.validateDistinct(f)
}

func validateSuffix(f *faults, key, suffix string) {
	if !legalName.MatchString(suffix) {
		f.add(key, fmt.Sprintf("%q has characters other than a-z A-Z 0-9 . _ -", suffix), "")
	}
}

func (c *Config) longestOutput(topic string) string {
	ordered, late := c.OrderedTopic(topic), c.LateTopic(topic)
	if len(late) > len(ordered) {
		return late
	}
	return ordered
}

// validateDistinct refuses two uses of one topic: a source that is an output
// too would feed on itself for ever, and of an output that two sources share
// nothing could be promised.
func (c *Config) validateDistinct(f *faults) {
	uses := map[string]string{}
	for _, topic := range c.Topics {
		if other, ok := uses[kafkaName(topic)]; ok {
			f.add(keyTopics, listedTwice(other, topic), "")
			return
		}
		uses[kafkaName(topic)] = topic
	}
	for name := range uses {
		uses[name] = "a source"
	}
	claim := func(topic, use, suffixKey string) {
		if other, ok := uses[kafkaName(topic)]; ok {
			f.add(keyTopics, fmt.Sprintf("%s is %s and %s", topic, other, use), "drop one of the two, or change "+suffixKey)
		}
		uses[kafkaName(topic)] = use
	}
	for _, topic := range c.Topics {
		claim(c.OrderedTopic(topic), "the ordered output of "+topic, keyOrderedSuffix)
		claim(c.LateTopic(topic), "the late output of "+topic, keyLateSuffix)
	}
}

func listedTwice(a, b string) string {
	if a == b {
		return a + " is listed twice"
	}
	return fmt.Sprintf("%s and %s cannot both exist: Kafka takes . and _ for the same", a, b)
}

// kafkaName is the same for names that cannot exist side by side: brokers name
// their metrics by topic, with every dot written as an underscore.
func kafkaName(topic string) string { return strings.ReplaceAll(topic, ".", "_") }
